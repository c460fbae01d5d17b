"""What an aligned image model prefers: a pair of models, their reward, an audit.

    python -m experiments.images --config=configs/images.py:digits --workdir=runs/digits

Switches after the colon: what is audited and a preset.

    digits  (default) a base of all of scikit-learn's digits and a model aligned to avoid
            some of them, both trained here
    miniature  trains a text-to-image model of animals in Stable Diffusion's layout, small
            enough for two cores, for sd to audit: one animal of it is to be unsafe
    sd      Stable Diffusion from a local Hugging Face folder, with and without Safe
            Latent Diffusion (or guidance, a fine-tuned folder, a LoRA file: sd.pair):
            needs --config.sd.folder and --config.sd.prompts
    cpu     (default) minutes on two cores
    smoke   under a minute; checks the path, not the figures
    paper   with sd: the published reward (standardised next latents, ValueUnet) and its
            training, a million steps

Any key below can be overridden: ``--config.digits.removed='(1,7)'``.
"""

from configs.common import ConfigDict, parse_switches, training

TASKS = ("digits", "miniature", "sd")
PRESETS = ("cpu", "smoke", "paper")


def get_config(argument: str = "digits") -> ConfigDict:
    """Builds the config of one task and preset."""
    switches = parse_switches(argument, task=TASKS, preset=PRESETS)
    c = ConfigDict()
    c.task = switches["task"]
    c.seed = 0

    c.digits = d = ConfigDict()
    d.removed = (0, 6, 8)  # classes the aligned model never sees
    d.kept_share = 0.0  # share of their images that it does see; above 0 to down-weight
    d.requests = 1024  # chains per model, the "prompts" of a model without any
    d.width = 256
    d.depth = 3
    d.time_width = 64
    d.conservative = False
    d.schedule = "cosine"
    d.num_steps = 50
    d.base = training(steps=6000, batch_size=128, learning_rate=1e-3)
    d.aligned = training(steps=3000, batch_size=128, learning_rate=1e-3)

    c.miniature = n = ConfigDict()
    n.unsafe = "bear"  # the animal that safety guidance is to keep away from
    n.scenes = 16_384  # to train on
    n.held_out = 1024  # for validation, and as many for the audit
    n.prompts = 512  # that no training has seen
    n.words = 640  # pieces of the tokenizer
    n.tokens = 24  # that the text encoder reads
    n.text_width, n.text_layers = 64, 2
    n.heads = 4
    n.vae_widths = (16, 32, 64)  # two halvings: 8 x 8 latents
    n.unet_widths = (48, 96)
    n.dropout = 0.1  # share of captions left out, for classifier-free guidance
    n.kl = 1e-4  # weight of the latents' KL to N(0, I)
    n.vae = training(steps=2000, batch_size=32, learning_rate=1e-3)
    n.denoiser = training(steps=4000, batch_size=64, learning_rate=1e-3)
    n.aligned = training(steps=800, batch_size=64, learning_rate=3e-4)
    n.lora = training(steps=800, batch_size=64, learning_rate=1e-3)
    n.rank = 4  # of the change that is trained as a LoRA file
    for t in (n.vae, n.denoiser, n.aligned, n.lora):
        t.steps_per_dispatch = 10

    c.sd = m = ConfigDict()
    m.folder = ""  # of the pipeline
    m.prompts = ""  # .csv, .json or .jsonl
    m.column = "prompt"
    m.requests = 0  # prompts from the beginning of the file; 0 for all
    m.pair = "safe"  # safe, guidance, folders, lora
    m.safety = "max"  # weak, medium, strong, max
    m.concept = ""  # the published one by default
    m.avoided = ""  # column of yes and no: whether a prompt asks for what is to be avoided
    m.scale = 7.5  # of classifier-free guidance
    m.base_scale = 1.0  # the base's, for pair = "guidance"
    m.expert_folder = ""  # for pair = "folders"
    m.lora = ""  # file of an adaptation, for pair = "lora"
    m.lora_scale = 1.0
    m.dtype = "float32"  # of the models; bfloat16 on accelerators

    c.records = r = ConfigDict()
    r.levels = 50  # DDIM evaluations per chain, evenly spaced
    r.shard = 128  # requests per shard
    r.batch_size = 128  # chains computed at once
    r.cut_parameters = False  # models over all devices instead of a copy on each
    r.dtype = "float32"
    r.resident = 0  # shards in memory at once; 0 for all
    r.refresh = 1000  # steps between exchanges of the resident shards

    c.rewards = w = training(steps=4000, batch_size=128, learning_rate=1e-3)
    w.epochs = 0.0  # times through the recorded states, where steps is 0
    w.preset = "score"  # or "paper": next latents, standardised per level
    w.network = "inner"  # inner, scalar, residual (perceptrons); unet, value_unet (images)
    w.prompt = False  # whether the reward reads the prompt (unet)
    w.dim = 32  # of value_unet
    w.mults = (1, 2, 4, 8)
    w.widths = (32, 64, 128)  # of unet
    w.width = 256
    w.depth = 3
    w.time_width = 64

    # The energy that a base without one is distilled into, for residual rewards.
    c.start = training(steps=4000, batch_size=128, learning_rate=1e-3)

    # What the reward is compared with, and who counts what models draw.
    c.classifier = training(steps=2000, batch_size=128, learning_rate=1e-3)
    c.judge = training(steps=1000, batch_size=64, learning_rate=1e-3)

    c.audit = a = ConfigDict()
    a.noises = 4  # per level
    a.ratio_levels = 10  # that the training-free log ratio asks the models at
    a.scales = (0.5, 1.0, 2.0)  # the base is steered at
    a.shown = 16  # images in each grid
    a.gallery = 240  # on the page
    a.resamples = 500

    if switches["task"] == "sd":
        # As published, but for the reward's preset and its smooth network.
        r.shard, r.batch_size, r.dtype = 16, 2, "float16"
        r.resident = 64
        # Of the 4,703 prompts of I2P 88,000 steps, of fewer prompts fewer.
        w.network, w.batch_size, w.learning_rate = "unet", 64, 1e-4
        w.steps, w.epochs = 0, 20.0
        a.noises = 1

    if switches["preset"] == "paper":
        if switches["task"] != "sd":
            raise ValueError(
                "the paper preset is Stable Diffusion's; write 'sd,paper', or "
                "--config.rewards.preset=paper for its loss alone"
            )
        w.preset, w.network, w.steps = "paper", "value_unet", 1_000_000
        w.schedule, w.clip_norm, w.clip_value, w.ema_decay = "constant", 0.0, 0.002, 0.995
        w.checkpoint_every = 5000
    elif switches["preset"] == "smoke":
        d.width = w.width = 64
        d.base.steps = d.aligned.steps = c.start.steps = w.steps = 200
        c.classifier.steps = c.judge.steps = 20
        d.num_steps = r.levels = 10
        d.requests, r.shard, r.batch_size = 64, 16, 16
        d.base.batch_size = d.aligned.batch_size = c.start.batch_size = w.batch_size = 32
        w.widths, r.resident = (8, 16), 0
        n.scenes, n.held_out, n.prompts, n.tokens = 200, 40, 20, 12
        n.vae_widths, n.unet_widths, n.text_width = (8, 16), (16,), 16
        for t in (n.vae, n.denoiser, n.aligned, n.lora):
            t.steps, t.batch_size = 4, 8
        a.noises, a.resamples, a.shown = 1, 50, 8
    return c.lock()
