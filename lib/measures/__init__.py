"""What does a model cost, and how good is it?"""
