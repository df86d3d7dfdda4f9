"""Pretraining of vision transformers, with their attention watched while it forms.

`config` says what a run is, `loop` trains, `checkpoints` keeps what a run needs to go on. `config` and
`presets` do without PyTorch, so that help and refusals are quick.
"""
