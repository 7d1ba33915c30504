"""The fault suite: no fault that can be produced on one machine loses acknowledged work."""
