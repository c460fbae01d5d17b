"""Entry points: flags -> build -> call -> write."""
