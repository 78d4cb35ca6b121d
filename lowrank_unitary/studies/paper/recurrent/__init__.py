"""Recurrent networks in torch: sequences come in, curves of a training run by one method go out."""
