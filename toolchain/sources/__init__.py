"""Which commits a run works on: mirrors, layouts, the pin, and scratch work trees."""
