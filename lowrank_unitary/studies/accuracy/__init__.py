"""The accuracy studies, one a file: cases, what is measured, figure and table; `exact` holds their judge."""
