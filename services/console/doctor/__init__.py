"""`cutover doctor`: what goes wrong on real machines, looked at before it does. It changes nothing.

`looking_…` gathers facts; `of_…` judges them, one small function for each check, and knows nothing of how they were got;
`table` has the checks in their order. To add one is to add a function and a row.
"""
