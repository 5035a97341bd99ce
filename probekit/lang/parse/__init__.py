"""From a script's text to its syntax tree.

- ``grammar``       makes the parser of grammar/*.lark with Lark, and keeps it on disk
- ``parser``        feeds it the tokens of a script: renames words, replaces macro variables
- ``tree_builder``  makes the tree's nodes: one method for each grammar rule
- ``literals``      works out the values of integer, character and string constants
- ``macros``        replaces macro variables: ``$1``, ``$$1``, ``$target``
"""
