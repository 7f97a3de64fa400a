"""How are tokens dropped? Scored, cut, gathered: tensors are shorter from the pruning layer on.

dropping    who stays, and how are the others left behind?
rules       how does a trained model decide who stays? Rank, threshold, predictor, rank bins
config      what does a token-pruned model's config.json say?
model       what does it compute? The compact encoder, shorter and shorter
costs       what did really run, against the dense model with padding and without?
training    how are soft decisions trained, and a method's knob set to a budget?
"""
