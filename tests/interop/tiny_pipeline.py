"""A Stable Diffusion folder with random weights, written by the libraries that read it."""

import json

import pytest

CORPUS = (
    "a photograph of an astronaut riding a horse on the moon, in the style of . ' s 1 2"
)


def write_tokenizer(folder, words=CORPUS):
    """The two files of a CLIP tokenizer, with merges learned from a few words."""
    from transformers import CLIPTokenizer

    vocabulary, merges = byte_vocabulary(words)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def byte_vocabulary(words):
    """Letters alone, letters that end a word, and merges of the words' beginnings."""
    letters = [chr(c) for c in range(33, 127)]
    symbols = letters + [c + "</w>" for c in letters]
    merges, made = [], set(symbols)
    for word in words.lower().split():
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = f"{pieces[0]} {pieces[1]}"
            pieces[:2] = [pieces[0] + pieces[1]]
            if pair not in merges:
                merges.append(pair)
            if pieces[0] not in made:
                made.add(pieces[0])
                symbols.append(pieces[0])
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    return {s: i for i, s in enumerate(symbols)}, merges


def make_parts(*, linear=False, act="quick_gelu", blocks=None, size=8):
    """Random tiny modules of the v1 family."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    down = blocks or ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
    up = tuple(
        name.replace("Down", "Up").replace("UpBlock2D", "UpBlock2D") for name in down[::-1]
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=size,
        block_out_channels=(16, 32, 32)[: len(down)],
        layers_per_block=2,
        down_block_types=down,
        up_block_types=up,
        cross_attention_dim=24,
        attention_head_dim=4,
        norm_num_groups=8,
        use_linear_projection=linear,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    config = transformers.CLIPTextConfig(
        vocab_size=400,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act=act,
        bos_token_id=0,
        eos_token_id=1,
    )
    text = transformers.CLIPTextModel(config)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    for module in (unet, vae, text):
        module.eval()
        # Biases and norms start at constants: make every tensor count.
        with torch.no_grad():
            for p in module.parameters():
                p.add_(0.05 * torch.randn_like(p))
    return {"unet": unet, "vae": vae, "text_encoder": text, "scheduler": scheduler}


def write_pipeline(folder, **options):
    """Saves a whole pipeline; returns its torch modules."""
    diffusers = pytest.importorskip("diffusers")
    parts = make_parts(**options)
    tokenizer = write_tokenizer(folder.with_name(folder.name + "-tokenizer"))
    pipeline = diffusers.StableDiffusionPipeline(
        **parts,
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return {**parts, "tokenizer": tokenizer}
