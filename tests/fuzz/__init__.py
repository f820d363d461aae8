"""Files that somebody hands over, damaged in seeded ways: each is refused in one line, or gives an answer.

python -m tests.fuzz --minutes 10
"""
