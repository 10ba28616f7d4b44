"""Fine-tuning: encoder and head trained end to end, as rows of the same table. See `evar.finetune.run`."""
