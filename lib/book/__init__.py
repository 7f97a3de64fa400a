"""How does the book come about?

chapters    a notebook is executed, and what it leaves becomes a chapter
pages       what do the generated pages say?
publish     the whole book is built, and what it links to is checked
"""
