//! `causeway audit`: the trail of decisions and changes, shown and proven.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use super::audit_copy::{self, Compared};
use super::exit::{Exit, Failure, Outcome};
use super::operator::{OperatorArgs, Reach};
use super::output::{Output, Tone, note, visible};
use super::table::{self, cell, field, text};
use crate::keyring::Keyring;
use crate::store::{AuditReport, DATABASE_FILE, verify_audit};

/// What `causeway audit` can do.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AuditCommand {
    /// List records, the newest first
    List(Box<ListArgs>),
    /// Prove that no record was changed, removed, moved or cut off: 0 if so, 1 with the finding
    ///
    /// Reads the database itself, beside a running gateway or without one.
    Verify(VerifyArgs),
}

/// What `causeway audit list` takes.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only of this subject, word for word: operator:alice, peer:stk_b/bob, bob
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Only this action, such as peer.revoke or federation.runs.forward
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only about this: a run, a peer, a token
    #[arg(long, value_name = "OBJECT")]
    object: Option<String>,
    /// Only of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only with this outcome, such as refused
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// Only records older than this one
    #[arg(long, value_name = "ID")]
    before: Option<u64>,
    /// How many records
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// What `causeway audit verify` takes.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// Also compare a copy with it: the file of audit.sink. What the copy has and the database has not, or has
    /// otherwise, is a finding
    #[arg(long, value_name = "FILE")]
    sink: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

/// Lists or verifies the trail.
pub(super) async fn run(command: AuditCommand) -> Outcome {
    match command {
        AuditCommand::List(args) => list(&args).await,
        AuditCommand::Verify(args) => verify(&args),
    }
}

async fn list(args: &ListArgs) -> Outcome {
    let reply = args
        .operator
        .within(async |api| {
            let mut url = api.url(&["audit"]);
            let before = args.before.map(|before| before.to_string());
            for (name, value) in [
                ("subject", &args.subject),
                ("action", &args.action),
                ("object", &args.object),
                ("tenant_id", &args.tenant),
                ("outcome", &args.outcome),
                ("before", &before),
                ("limit", &Some(args.limit.to_string())),
            ] {
                if let Some(value) = value {
                    url.query_pairs_mut().append_pair(name, value);
                }
            }
            api.call(Method::GET, url, None).await
        })
        .await?;
    let output = Output::stdout();
    if args.operator.reach.json {
        output.json(&reply.body)?;
        return Ok(Exit::Done);
    }
    let answer = reply.json();
    let items = answer.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<_> = items
        .iter()
        .map(|record| {
            [
                cell(record, "/audit_id"),
                cell(record, "/time"),
                cell(record, "/subject"),
                cell(record, "/action"),
                cell(record, "/object"),
                cell(record, "/outcome"),
                text(record, "/reason"),
            ]
        })
        .collect();
    table::print(output, ["ID", "TIME", "SUBJECT", "ACTION", "OBJECT", "OUTCOME", "REASON"], &rows)?;
    if let Some(next) = answer.get("next_before").and_then(Value::as_i64) {
        note(format_args!("older records: --before {next}"));
    }
    Ok(Exit::Done)
}

fn verify(args: &VerifyArgs) -> Outcome {
    let config = args.reach.config()?;
    let data_dir = &config.gateway.data_dir;
    let database = data_dir.join(DATABASE_FILE);
    let name = database.to_string_lossy();
    let name = visible(&name);
    if !database.exists() {
        return Err(Failure::failed(format!("{name} does not exist: there is nothing to verify")));
    }
    let key_file = config.peering.key_file.as_deref();
    let keys = Keyring::read(data_dir, key_file).map_err(Failure::failed)?;
    let report = verify_audit(&database, |key_id, text, signature| {
        keys.find_public(key_id).is_some_and(|key| key.verify(text, signature))
    });
    let report = report.map_err(|error| Failure::failed(format!("{name}: {error}")))?;
    let compared = args.sink.as_deref().map(|sink| audit_copy::compare(sink, &database)).transpose()?;
    let finding = report.finding.as_ref().map(ToString::to_string);
    let finding = finding.or_else(|| compared.as_ref()?.finding.clone());
    let exit = if finding.is_none() { Exit::Done } else { Exit::Failed };
    let output = Output::stdout();
    if args.reach.json {
        output.line(as_json(&report, compared.as_ref(), finding.as_deref()))?;
        return Ok(exit);
    }
    match finding {
        Some(finding) => Err(Failure::failed(format!("the audit in {name} is not whole: {finding}"))),
        None => tell(output, &name, &report, compared.as_ref()),
    }
}

fn tell(output: Output, name: &str, report: &AuditReport, compared: Option<&Compared>) -> Outcome {
    let good = output.style.paint(Tone::Good, "ok:");
    output.line(format_args!("{good} {name}: every record is as it was written, none is missing"))?;
    field(output, "records", &report.records.to_string())?;
    if report.unchained > 0 {
        field(
            output,
            "older",
            &format!("{} from before the chain, which nothing vouches for", report.unchained),
        )?;
    }
    let signed = match report.signed_through {
        Some(through) => format!("through record {through}, in {} checkpoints", report.checkpoints),
        None => "not yet: the end could have been cut off unseen".to_owned(),
    };
    field(output, "signed", &signed)?;
    if let Some(Compared { records, last, .. }) = compared {
        let copy = match last {
            Some(last) => format!("the same {records} records, up to record {last}"),
            None => "no record is in it".to_owned(),
        };
        field(output, "copy", &copy)?;
    }
    Ok(Exit::Done)
}

fn as_json(report: &AuditReport, compared: Option<&Compared>, finding: Option<&str>) -> Value {
    json!({
        "ok": finding.is_none(),
        "records": report.records,
        "unchained": report.unchained,
        "checkpoints": report.checkpoints,
        "signed_through": report.signed_through,
        "copy": compared.map(|compared| json!({"records": compared.records, "last": compared.last})),
        "finding": finding,
    })
}
