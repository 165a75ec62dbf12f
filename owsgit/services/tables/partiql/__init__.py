"""PartiQL as DynamoDB has it: statements that read, insert, change and delete items.

A text is read once and kept (`grammar.read`): its conditions and updates are the trees of expressions, with
placeholders for parameters, so that a statement does what expressions that say the same do. `plans` finds the keys in
it, `binding` makes writes of it. Errors are ValidationErrors in DynamoDB's words, without the prefix that errors of
expressions have. Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ql-reference.html
"""
