"""How is a model taught: a teacher, what is left after pruning, or weights and gates together?"""
