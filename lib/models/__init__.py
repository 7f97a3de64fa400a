"""What is an encoder made of, how are its units silenced, and how are they removed for good?"""
