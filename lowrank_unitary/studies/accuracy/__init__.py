"""The accuracy studies, one a file: cases, measurement, figure and table; `exact` is their reference."""
