"""The one way an argument is refused."""


class ArgumentError(ValueError):
    """A refused argument: its name, the rule it broke, the value received and the remedy."""

    def __init__(self, name: str, rule: str, value: object, remedy: str) -> None:
        super().__init__(f"{name} must be {rule}; got {value!r}. {remedy}")
        self.name, self.rule, self.value, self.remedy = name, rule, value, remedy

    def renamed(self, name: str) -> "ArgumentError":
        """The same refusal under the name by which the user gave the value, e.g. a config key."""
        return ArgumentError(name, self.rule, self.value, self.remedy)
