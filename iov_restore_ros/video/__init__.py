"""The side information of a frame: history, optical flow, gyroscope, veil and glass."""
