"""Fine-tuning of encoders: `python finetune.py --help` teaches; `evar finetune` is the same command."""

from evar.cli import main

if __name__ == "__main__":
    main(["finetune"])
