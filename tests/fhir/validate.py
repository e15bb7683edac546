"""Validates AuditEvents on standard input, one JSON resource a line.

The structure is judged by the public model `fhir.resources`, which is generated
from HL7's definitions: names, cardinalities, types and the forms of primitives.
What it lets pass is added here, from the specifications:

- FHIR R4 JSON: no nulls, no empty objects, arrays or strings, no duplicate
  names, and a resource that reads back as it was written (the model would make
  true of "yes").
- FHIR R4 AuditEvent: an id of 64 characters at most, the required bindings, and
  one requestor at most.
- IHE BALP 1.1.4: the rules of the profiles Create and Read, where claimed.

Prints `<line>: <what is wrong>` for each line that is not valid, and then how many
are. What was read is not repeated.
"""

import json
import sys

from fhir.resources.R4B.auditevent import AuditEvent
from pydantic import ValidationError

# http://hl7.org/fhir/R4/valueset-audit-event-action.html and so on.
ACTIONS = set("CRUDE")
OUTCOMES = {"0", "4", "8", "12"}
NETWORK_TYPES = set("12345")

BALP = "https://profiles.ihe.net/ITI/BALP/"
PROFILE = BALP + "StructureDefinition/IHE.BasicAudit."
X_REQUEST_ID = (BALP + "CodeSystem/BasicAuditEntityType", "XrequestId")
REST = ("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest")
INTERACTION = "http://hl7.org/fhir/restful-interaction"
SYSTEM_OBJECT = ("http://terminology.hl7.org/CodeSystem/audit-entity-type", "2")
OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
SOURCE, DESTINATION = (DCM, "110153"), (DCM, "110152")

# action, subtypes of which there is one, client, server, user
PROFILES = {
    PROFILE + "Create": ("C", {"create"}, SOURCE, DESTINATION, {"AUT", "INF", "CST"}),
    PROFILE + "Read": ("R", {"read", "vread"}, DESTINATION, SOURCE, {"IRCP"}),
}


class Invalid(Exception):
    """What is wrong."""


def require(condition, what):
    if not condition:
        raise Invalid(what)


def once(pairs):
    names = [name for name, _ in pairs]
    require(len(names) == len(set(names)), "a name comes twice in an object")
    return dict(pairs)


def no_blanks(value):
    require(value not in ({}, [], "", None), "an empty value or a null")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            no_blanks(item)


def bindings(event):
    require(len(event.get("id", "")) <= 64, "id is longer than 64")
    require(event.get("action", "C") in ACTIONS, "action is not of its value set")
    require(event.get("outcome", "0") in OUTCOMES, "outcome is not of its value set")
    for agent in event["agent"]:
        network = agent.get("network", {})
        require(network.get("type", "1") in NETWORK_TYPES, "network.type is not of its value set")
    requestors = [agent for agent in event["agent"] if agent["requestor"]]
    require(len(requestors) <= 1, "two initiators")
    for entity in event.get("entity", []):
        require(not {"name", "query"} <= set(entity), "sev-1: a name and a query")
    period = event.get("period", {})
    if {"start", "end"} <= set(period):
        require(period["start"] <= period["end"], "per-1: the period ends before it starts")


def code(coding):
    return (coding.get("system"), coding.get("code"))


def slice_of(items, kind, most, what):
    found = [item for item in items if code(kind(item)) in most]
    require(len(found) == 1, f"BALP: not one {what}")
    return found[0]


def profile(event, name):
    require(name in PROFILES, "a profile that is not known here is claimed")
    action, interactions, client, server, users = PROFILES[name]
    require(code(event["type"]) == REST, "BALP: type is not rest")
    slice_of(event["subtype"], lambda it: it, {(INTERACTION, i) for i in interactions}, "interaction")
    require(event.get("action") == action, "BALP: another action")
    require(event.get("outcome") == "0", "BALP: no success")

    def kind(agent):
        codings = agent.get("type", {}).get("coding", [{}])
        return codings[0]

    for which, what in ((client, "client"), (server, "server")):
        agent = slice_of(event["agent"], kind, {which}, what)
        require("who" in agent and "network" in agent, f"BALP: {what} without who or network")
        require("media" not in agent, f"BALP: {what} with media")
    user = slice_of(event["agent"], kind, {(PARTICIPATION, u) for u in users}, "user")
    require("who" in user and user["requestor"], "BALP: a user who asked for nothing")
    require("media" not in user and "network" not in user, "BALP: a user with a network")

    def entity_type(entity):
        return entity.get("type", {})

    data = slice_of(event["entity"], entity_type, {SYSTEM_OBJECT}, "data entity")
    require(code(data.get("role", {})) in {(OBJECT_ROLE, role) for role in ("3", "4", "20")}, "BALP: role of data")
    require("what" in data, "BALP: data without what")
    transaction = slice_of(event["entity"], entity_type, {X_REQUEST_ID}, "transaction")
    require("value" in transaction.get("what", {}).get("identifier", {}), "BALP: transaction without its id")


def validate(line):
    try:
        event = json.loads(line, object_pairs_hook=once)
    except ValueError:
        raise Invalid("not JSON") from None
    require(isinstance(event, dict) and event.get("resourceType") == "AuditEvent", "not an AuditEvent")
    no_blanks(event)
    try:
        model = AuditEvent.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"the model refuses {place}: {first['type']}") from None
    require(json.loads(model.model_dump_json()) == event, "the model reads something else than was written")
    bindings(event)
    for name in event.get("meta", {}).get("profile", []):
        profile(event, name)


def main():
    valid = wrong = 0
    for number, line in enumerate(sys.stdin, start=1):
        try:
            validate(line)
            valid += 1
        except Invalid as error:
            wrong += 1
            print(f"{number}: {error}")
    print(f"{valid} valid, {wrong} not")
    return 0 if valid and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
