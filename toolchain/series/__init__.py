"""The patch series: anchored edits, rendered onto pristine trees."""
