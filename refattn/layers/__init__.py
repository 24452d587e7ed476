"""Operators that papers define besides attention, and the parts every network shares."""
