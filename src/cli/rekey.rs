//! `rekey`.

use serde_json::json;

use super::args::Rekey;
use super::output::{Column, line, seconds, table};
use super::{Answer, Backend};

pub(super) async fn run(backend: &Backend, command: Rekey) -> Answer {
    let customer = backend.customer(&command.customer).await?;
    let explain = |error| backend.explain(error);
    let Some(choice) = command.kms else {
        let status = customer.rekey_status().await.map_err(explain)?;
        if backend.output.json {
            return Ok(line(&json!(status)));
        }
        let now = vec![
            status.kms_key.to_string(),
            status.since.map_or_else(|| "-".to_owned(), seconds),
            "in use".to_owned(),
            String::new(),
        ];
        let former = status.former.iter().map(|key| {
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
        return Ok(line(&json!(rekeyed)));
    }
    Ok(match rekeyed.changed {
        true => format!("{} keys are under {} now\n", rekeyed.keys, rekeyed.kms_key),
        false => format!("{} keys were under {} already\n", rekeyed.keys, rekeyed.kms_key),
    })
}
