"""How networks are computed: on which device, in which precision, by which threads."""
