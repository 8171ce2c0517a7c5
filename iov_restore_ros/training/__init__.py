"""How a generator is trained, offline; nothing here is needed to run one."""
