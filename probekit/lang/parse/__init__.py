"""From a script's text to its syntax tree.

``parser``        renames words, replaces macro variables, feeds the tokens to the parser
``tree_builder``  makes a tree node of each grammar rule
``literals``      the values of integer, character and string constants
``macros``        macro variables: ``$1``, ``$$1``, ``$target``
"""
