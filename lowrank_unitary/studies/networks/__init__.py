"""Studies that train networks; they need torch."""
