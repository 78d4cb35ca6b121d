"""The n×n matrix: initialisers, unitarity defect, healing, repair, and storage."""
