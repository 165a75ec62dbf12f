"""AWS's policy language: documents, conditions, and the one evaluator for pushes and for calls. Pure.

Answers are three-valued inside: true, false, or unknown (None) for what cannot be told, such as a number that is none
or a variable without a value. An Allow needs true; a Deny is also moved by unknown: so the unknown opens nothing.

Sources: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html,
.../reference_policies_elements_condition_operators.html, .../reference_policies_variables.html and
.../reference_policies_evaluation-logic.html
"""
