"""Computing networks: devices, precisions and threads."""
