"""A release built, served and rolled back in miniature, on trees that we wrote."""
