"""The demonstration: a recurrent network on handwritten digits, its recurrent matrix moved in several ways.

Results: a table and a figure of accuracy, loss and unitarity defect.
"""
