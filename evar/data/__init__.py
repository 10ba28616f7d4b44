"""Tasks: which clips there are, what their labels are, and which of them are for training, validation and test."""
