//! The OpenAPI 3.1 document: made from the [table](super::endpoints) of endpoints.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::endpoints::{Endpoint, Row, TABLE};

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for row in TABLE {
        let path = paths.entry(row.path).or_insert_with(|| json!({}));
        path[row.method.as_str().to_lowercase()] = operation(row);
    }
    for (path, summary) in [
        ("/v1/health", "Whether the daemon runs"),
        ("/v1/ready", "Whether the log can be written"),
        ("/v1/openapi.json", "This document"),
    ] {
        let id = path.trim_start_matches("/v1/").trim_end_matches(".json");
        let mut responses =
            json!({ "200": answer("It is so", "application/json", json!({ "type": "object" })) });
        refusals(&mut responses, &[400, 503]);
        paths.insert(
            path.to_owned(),
            json!({ "get": { "operationId": id, "summary": summary, "responses": responses } }),
        );
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Strongroom",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "certificate": [] }, { "certificate": [], "token": [] }],
        "paths": paths,
        "components": { "schemas": schemas(), "securitySchemes": {
            "certificate": { "type": "mutualTLS", "description": "a client certificate, or the peer of a Unix socket" },
            "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
        } },
    })
}

fn operation(row: &Row) -> Value {
    let mut parameters: Vec<Value> = path_parameters(row.path).into_iter().map(path_parameter).collect();
    parameters.push(header(
        "Strongroom-Request",
        "names the request, in the answer and in the log",
        id_schema(),
    ));
    parameters.push(header(
        "Strongroom-Purpose",
        "why: HL7 v3 PurposeOfUse",
        json!({ "enum": crate::access::Purpose::ALL.map(crate::access::Purpose::code) }),
    ));
    parameters.push(header("Strongroom-Session", "within which session", id_schema()));
    if row.operation.sees_content() {
        parameters.push(header(
            "Strongroom-Emergency",
            "in which emergency, declared on this node",
            id_schema(),
        ));
    }
    parameters.extend(own_parameters(row.endpoint));
    let mut responses = Map::new();
    for (status, answer) in answers(row.endpoint) {
        responses.insert(status.to_owned(), answer);
    }
    let mut responses = Value::Object(responses);
    let mut statuses = vec![400, 401, 403, 404, 409, 429, 500, 503];
    if row.path.contains("{customer}") || row.path.starts_with("/v1/orders") {
        statuses.push(410);
    }
    let body = body(row.endpoint);
    if body.is_some() {
        statuses.extend([408, 413, 415]);
    }
    if matches!(row.endpoint, Endpoint::OpenBlob | Endpoint::HeadBlob) {
        statuses.extend([412, 416]);
    }
    refusals(&mut responses, &statuses);
    let mut operation = json!({
        "operationId": format!("{:?}", row.endpoint),
        "summary": row.summary,
        "x-operation": row.operation.code(),
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = body {
        operation["requestBody"] = body;
    }
    operation
}

fn path_parameters(path: &str) -> Vec<&str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect()
}

fn path_parameter(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": id_schema() })
}

fn id_schema() -> Value {
    json!({ "type": "string", "pattern": "^[0-9a-hjkmnp-tv-z]{26}$" })
}

fn header(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema })
}

fn in_query(name: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "required": false, "schema": schema })
}

fn own_parameters(endpoint: Endpoint) -> Vec<Value> {
    let text = || json!({ "type": "string" });
    match endpoint {
        Endpoint::Seal => vec![
            header("Strongroom-Name", "the blob's name, percent-encoded UTF-8", text()),
            header("Strongroom-Meta", "key=value, both percent-encoded; as often as there are pairs", text()),
            header(
                "Strongroom-Retain-Until",
                "kept until this day at least",
                json!({ "type": "string", "format": "date" }),
            ),
            header(
                "Strongroom-Suite",
                "another algorithm suite than the customer's",
                json!({ "enum": crate::suite::Suite::ALL.map(crate::suite::Suite::as_str) }),
            ),
            header(
                "Strongroom-Expect-Bytes",
                "how many bytes have to come",
                json!({ "type": "integer", "minimum": 0 }),
            ),
            header(
                "Idempotency-Key",
                "a key under which the same may be sent again for 24 hours, and is stored once",
                json!({ "type": "string", "pattern": "^[!-~]{1,64}$" }),
            ),
        ],
        Endpoint::OpenBlob | Endpoint::HeadBlob => ["Range", "If-Range", "If-Match", "If-None-Match"]
            .map(|name| header(name, "RFC 9110", text()))
            .to_vec(),
        Endpoint::ListBlobs => vec![
            in_query("limit", json!({ "type": "integer", "minimum": 1, "maximum": 1000 })),
            in_query("after", id_schema()),
            in_query("ids", json!({ "type": "boolean" })),
        ],
        Endpoint::ShowInventory => vec![
            in_query("limit", json!({ "type": "integer", "minimum": 0, "maximum": 100_000 })),
            in_query("after", id_schema()),
        ],
        Endpoint::ListCertificates => vec![in_query("customer", id_schema())],
        Endpoint::ShowCertificate => vec![in_query("bundle", json!({ "type": "boolean" }))],
        Endpoint::NewestOperations | Endpoint::NewestRecords => {
            vec![in_query("limit", json!({ "type": "integer", "minimum": 1, "maximum": 1000 }))]
        }
        _ => Vec::new(),
    }
}

fn body(endpoint: Endpoint) -> Option<Value> {
    let schema = |name: &str| {
        let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
        json!({ "required": true, "content": { "application/json": { "schema": schema } } })
    };
    let note =
        || json!({ "required": true, "content": { "text/plain": { "schema": { "type": "string" } } } });
    Some(match endpoint {
        Endpoint::Seal => json!({ "required": true, "content": { "*/*": { "schema": {} } } }),
        Endpoint::FindBlobs => schema("FindBlobs"),
        Endpoint::ExtendBlob => schema("Extension"),
        Endpoint::AddCustomer => schema("NewCustomer"),
        Endpoint::FindCustomer => schema("FindCustomer"),
        Endpoint::SetCustomer => schema("CustomerChange"),
        Endpoint::PlaceHold => schema("HoldTarget"),
        Endpoint::OpenSession | Endpoint::RequestAccess => schema("SessionLimits"),
        Endpoint::DeclareEmergency => schema("EmergencySpan"),
        Endpoint::ShredCancel => schema("Keys"),
        Endpoint::DraftOrder => schema("OrderDraft"),
        Endpoint::QueryAudit => schema("AuditQuery"),
        Endpoint::ProveRecord => schema("AuditRecord"),
        Endpoint::PublishAudit => schema("Publication"),
        Endpoint::RotateEpoch => schema("EpochKey"),
        Endpoint::Rekey => schema("CustomerKey"),
        Endpoint::RequestOrder | Endpoint::ApproveOrder => note(),
        _ => return None,
    })
}

fn answer(description: &str, media: &str, schema: Value) -> Value {
    json!({ "description": description, "content": { media: { "schema": schema } } })
}

fn answers(endpoint: Endpoint) -> Vec<(&'static str, Value)> {
    let object = || json!({ "type": "object" });
    let done = || answer("Done", "application/json", object());
    let note = || {
        answer("A signed note, or the text of one", "text/plain; charset=utf-8", json!({ "type": "string" }))
    };
    let bytes = |description: &str| answer(description, "*/*", json!({}));
    let nothing = |description: &str| json!({ "description": description });
    match endpoint {
        Endpoint::Seal
        | Endpoint::AddCustomer
        | Endpoint::PlaceHold
        | Endpoint::OpenSession
        | Endpoint::RequestAccess
        | Endpoint::ApproveAccess
        | Endpoint::DeclareEmergency
        | Endpoint::RequestOrder => vec![("201", done())],
        Endpoint::OpenBlob => vec![
            ("200", bytes("The blob")),
            ("206", bytes("A range of the blob")),
            ("304", nothing("It is what the client has")),
        ],
        Endpoint::HeadBlob => {
            vec![("200", nothing("Its headers")), ("304", nothing("It is what the client has"))]
        }
        Endpoint::DraftOrder | Endpoint::ShowOrder | Endpoint::ShowCheckpoint => vec![("200", note())],
        Endpoint::ShowCertificate => {
            let mut both = note();
            // With `bundle`: the note and the papers that it names.
            both["content"]["application/x-ndjson"] = json!({ "schema": {} });
            vec![("200", both)]
        }
        Endpoint::ProveRecord => {
            let text = json!({ "type": "string" });
            vec![("200", answer("A proof (c2sp.org/tlog-proof)", "text/plain; charset=utf-8", text))]
        }
        Endpoint::ViewAudit => vec![("200", answer("Lines of JSON", "application/x-ndjson", json!({})))],
        Endpoint::Metrics => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            vec![("200", answer("Figures", kind, json!({ "type": "string" })))]
        }
        _ => vec![("200", done())],
    }
}

fn refusals(responses: &mut Value, statuses: &[u16]) {
    for status in statuses.iter().collect::<BTreeSet<_>>() {
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        responses[status.to_string()] =
            answer("Refused or failed; its code says why", "application/problem+json", schema);
    }
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let day = || json!({ "type": "string", "format": "date" });
    let label = || json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$" });
    // A provider, for a new key, or a key.
    let kms_key = || {
        let pattern = "^[a-z0-9][a-z0-9._-]*(:[A-Za-z0-9:/_.-]+)?$";
        json!({ "type": "string", "pattern": pattern, "maxLength": 512 })
    };
    let period = || {
        json!({
            "type": "string", "pattern": "^P([0-9]+Y)?([0-9]+M)?([0-9]+W)?([0-9]+D)?$",
            "description": "a calendar period of ISO 8601",
        })
    };
    let window = || json!({ "type": "string", "pattern": "^P[1-9][0-9]{0,4}D$" });
    let suite = || json!({ "enum": crate::suite::Suite::ALL.map(crate::suite::Suite::as_str) });
    let maybe = |schema: Value| json!({ "anyOf": [schema, { "type": "null" }] });
    json!({
        "Problem": {
            "type": "object",
            "description": "RFC 9457",
            "required": ["type", "title", "status", "code", "detail"],
            "properties": {
                "type": text(), "title": text(), "status": { "type": "integer" }, "code": text(), "detail": text(),
                "rule": text(), "certificate": id_schema(), "limit": text(), "hint": text(),
            },
        },
        "FindBlobs": object(&["name"], json!({ "name": text(), "limit": maybe(json!({ "type": "integer", "minimum": 0 })), "ids": { "type": "boolean" } })),
        "Extension": object(&["until"], json!({ "until": day() })),
        "NewCustomer": object(&["label", "kms_key"], json!({
            "label": label(), "kms_key": kms_key(), "retention": maybe(period()), "window": maybe(window()),
            "suite": maybe(suite()), "strict": { "type": "boolean" }, "phi": maybe(json!({ "type": "boolean" })),
            "tenancy": maybe(json!({ "enum": ["held", "customer"] })),
        })),
        "FindCustomer": object(&["label"], json!({ "label": label() })),
        "CustomerChange": object(&[], json!({ "retention": maybe(period()), "window": maybe(window()), "suite": maybe(suite()) })),
        "HoldTarget": { "oneOf": [
            { "const": "customer" },
            object(&["day"], json!({ "day": day() })),
            object(&["blob"], json!({ "blob": id_schema() })),
        ] },
        "SessionLimits": object(&[], json!({
            "idle_seconds": maybe(json!({ "type": "integer", "minimum": 60, "maximum": 86_400 })),
            "absolute_seconds": maybe(json!({ "type": "integer", "minimum": 60, "maximum": 86_400 })),
        })),
        "EmergencySpan": object(&[], json!({
            "seconds": maybe(json!({ "type": "integer", "minimum": 60, "maximum": 14_400 })),
        })),
        "Keys": object(&["keys"], json!({ "keys": { "type": "array", "items": id_schema() } })),
        "OrderDraft": object(&["what", "requested_by"], json!({
            "what": { "type": "object" }, "customer": maybe(id_schema()), "requested_by": text(),
            "valid_seconds": maybe(json!({ "type": "integer", "minimum": 0 })),
        })),
        "AuditQuery": object(&[], json!({
            "customer": maybe(id_schema()), "principal": maybe(text()), "blob": maybe(id_schema()), "action": maybe(text()),
            "outcome": maybe(text()), "purpose": maybe(text()), "from": maybe(text()), "until": maybe(text()),
            "request": maybe(id_schema()), "after": maybe(text()),
            "limit": maybe(json!({ "type": "integer", "minimum": 1, "maximum": 1000 })),
        })),
        "CustomerKey": object(&["kms_key"], json!({ "kms_key": kms_key() })),
        "Publication": object(&[], json!({ "restore": { "type": "boolean" } })),
        "AuditRecord": {
            "type": "object",
            "description": "a record by its request, or by its place: shard and index. Without a customer, of \
                            anybody, for whoever may ask the whole log",
            "properties": {
                "customer": maybe(id_schema()), "request": maybe(id_schema()), "outcome": { "type": "boolean" },
                "from": maybe(text()), "until": maybe(text()),
                "shard": maybe(json!({ "type": "integer", "minimum": 0, "maximum": 65_535 })),
                "index": maybe(json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX })),
            },
            "additionalProperties": false,
        },
        "EpochKey": object(&["kms_key"], json!({ "kms_key": kms_key() })),
    })
}
