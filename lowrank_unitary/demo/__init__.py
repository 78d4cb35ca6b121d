"""The demonstration: a recurrent network on handwritten digits, its recurrent matrix moved in several ways.

In come a data set and settings; out go a table and a figure of accuracy, loss and unitarity defect.
"""
