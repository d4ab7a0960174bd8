"""Which failures an operation can end with: the reasons that comments name, and what HTTP itself has refused."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

from entrypoints.rest import refusals
from entrypoints.rest.answers import HTTP_STATUSES
from entrypoints.rest.http_rules import HttpRule
from entrypoints.rest.refusals import Refusal
from tools.openapi.contract import PACKAGE, Contract

REASONS = f"{PACKAGE}.ErrorReason"
PREFIX = "ERROR_REASON_"
_CODE = re.compile(rf"\b({'|'.join(code.name for code in grpc.StatusCode)})(?=[.;])")
_REST_ONLY = re.compile(r"REST only, (\d{3})\.")
_WORD = re.compile(r"\b[A-Z][A-Z_]{3,}\b")
_ANY_RPC = re.compile(r"any RPC of any service can end with (.*?), and any that is not public with (.*?)\.")
_OPEN_STREAM = re.compile(r"an open stream can end with (.*)", re.DOTALL)
_OF_BODIES = (
    refusals.BODY_INCOMPLETE,
    refusals.LENGTH_MISSING,
    refusals.BODY_TOO_LARGE,
    refusals.MEDIA_TYPE_UNSUPPORTED,
    refusals.BODIES_TOO_MANY,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A reason, the HTTP status it comes with, and when."""

    reason: str
    http: int
    text: str


class Failures:
    """Knows all failures that have a status."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._known = {failure.reason: failure for failure in _catalogued(contract)}
        found = _ANY_RPC.search(" ".join(map(self._said, contract.services)))
        if found is None:
            raise ValueError("no service's comment says any more what any RPC can end with")
        self._of_all, self._of_signed = (self._named(text) for text in found.groups())

    def of(self, rule: HttpRule, *, public: bool) -> dict[int, list[Failure]]:
        """Returns what a call can end with, by HTTP status."""
        method = rule.method
        found = [*self._of_all, *self._of_method(method), *map(self._refusal, _refusals(rule))]
        if not public:
            found += self._of_signed
        ordered = sorted({each.reason: each for each in found}.values(), key=lambda each: each.http)
        return {http: list(each) for http, each in groupby(ordered, key=lambda each: each.http)}

    def reasons(self) -> list[str]:
        """Returns all reasons there are, in the contract's order."""
        return list(self._known)

    def _of_method(self, method: MethodDescriptor) -> list[Failure]:
        text = self._said(method)
        if method.server_streaming and (found := _OPEN_STREAM.search(self._said(method.containing_service))):
            text += found[1]
        return self._named(text)

    def _refusal(self, refusal: Refusal) -> Failure:
        return self._known[refusal.reason]

    def _named(self, text: str) -> list[Failure]:
        return [self._known[word] for word in _WORD.findall(text) if word in self._known]

    def _said(self, thing: Any) -> str:
        return self._contract.comments[thing.full_name]


def _catalogued(contract: Contract) -> Iterable[Failure]:
    for value in contract.pool.FindEnumTypeByName(REASONS).values:
        text = contract.comments[f"{REASONS}.{value.name}"]
        if http := _status(text):
            yield Failure(value.name.removeprefix(PREFIX), http, text)


def _status(text: str) -> int | None:
    """Returns the HTTP status that a comment tells, by its number or by its code; None where a reason comes without."""
    if found := _REST_ONLY.search(text):
        return int(found[1])
    return HTTP_STATUSES[grpc.StatusCode[found[1]]] if (found := _CODE.search(text)) else None


def _refusals(rule: HttpRule) -> list[Refusal]:
    found = [refusals.REQUEST_TOO_SLOW, refusals.HEADERS_TOO_LARGE]
    if rule.body:
        found += _OF_BODIES
    if rule.template.fields:
        found.append(refusals.PATH_UNKNOWN)
    if rule.method.server_streaming:
        found.append(refusals.HTTP_TOO_OLD)
    return found


def described(failures: Iterable[Failure]) -> str:
    """Returns the reasons as a list."""
    return "\n".join(f"- `{failure.reason}`: {failure.text}" for failure in failures)
