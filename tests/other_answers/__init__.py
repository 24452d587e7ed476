"""Correct answers to the exercises, written otherwise than the stored ones: a check must pass them too.

One file a lesson, named as its folder of checks, with `ANSWERS` = {exercise: (function, …)}, two or more for each
exercise that asks for a function.
"""

from importlib import import_module
from pkgutil import iter_modules

FILES = [import_module(f"other_answers.{module.name}") for module in iter_modules(__path__)]
ANSWERS = {exercise: functions for file in FILES for exercise, functions in file.ANSWERS.items()}
