//! `rekey`.

use serde_json::json;

use super::args::Rekey;
use super::output::{Column, line, seconds, table};
use super::{Answer, Store};

pub(super) async fn run(backend: &Store, command: Rekey) -> Answer {
    let customer = backend.customer(&command.label).await?;
    let explain = |error| backend.explain(error);
    let Some(choice) = command.kms else {
        let status = customer.rekey_status().await.map_err(explain)?;
        let former = status.former.iter();
        if backend.output.json {
            let former = former.map(|key| {
                json!({ "kms_key": key.kms_key, "last_use": key.last_use, "uses_since": key.uses_since })
            });
            return Ok(line(&json!({
                "customer": customer.id(),
                "kms_key": status.kms_key,
                "since": status.since,
                "former": former.collect::<Vec<_>>(),
            })));
        }
        let now = vec![
            status.kms_key.to_string(),
            status.since.map_or_else(|| "-".to_owned(), seconds),
            "in use".to_owned(),
            String::new(),
        ];
        let former = former.map(|key| {
            vec![key.kms_key.to_string(), "-".to_owned(), seconds(key.last_use), key.uses_since.to_string()]
        });
        let columns = [
            ("KMS KEY", Column::Whole),
            ("SINCE", Column::Whole),
            ("LAST USE", Column::Whole),
            ("USES SINCE", Column::Number),
        ];
        return Ok(table(&columns, std::iter::once(now).chain(former)));
    };
    let rekeyed = customer.rekey(choice).await.map_err(explain)?;
    if backend.output.json {
        return Ok(line(&json!({
            "customer": customer.id(),
            "kms_key": rekeyed.kms_key,
            "from": rekeyed.from,
            "ring_version": rekeyed.ring_version,
            "keys": rekeyed.keys,
            "changed": rekeyed.changed,
        })));
    }
    Ok(match rekeyed.changed {
        true => format!("{} keys are under {} now\n", rekeyed.keys, rekeyed.kms_key),
        false => format!("{} keys were under {} already\n", rekeyed.keys, rekeyed.kms_key),
    })
}
