//! Loads rows of values into PostgreSQL by COPY, each value in the text form that the engine's own input function reads.
//!
//! Refuses nothing itself; the engine judges every value. Called by `write`.

use super::engine::Engine;
use super::error::TransferError;
use super::plan::TablePlan;
use super::rows::MappedRow;
use super::session::Session;
use super::value::Value;

/// Bytes of one message.
const BUFFER: usize = 64 * 1024;

/// Copies rows into the table; a key that is there is the engine's error.
pub(super) async fn load(session: &mut Session, plan: &TablePlan, rows: &[MappedRow]) -> Result<u64, TransferError> {
    let Session::Postgres(connection) = session else {
        return Err(TransferError::statement("COPY needs a PostgreSQL session"));
    };
    let wrong = |error: sqlx::Error| TransferError::sql(Engine::Postgres, &error);
    let names: Vec<String> = plan.columns.iter().map(|c| Engine::Postgres.quote(&c.target.name)).collect();
    let sql = format!("COPY {} ({}) FROM STDIN", plan.target.quoted(), names.join(", "));
    let mut sink = connection.copy_in_raw(&sql).await.map_err(wrong)?;
    let mut buffer = Vec::with_capacity(2 * BUFFER);
    for row in rows {
        for (i, value) in row.values.iter().enumerate() {
            if i > 0 {
                buffer.push(b'\t');
            }
            push(&mut buffer, value);
        }
        buffer.push(b'\n');
        if buffer.len() >= BUFFER {
            sink.send(buffer.as_slice()).await.map_err(wrong)?;
            buffer.clear();
        }
    }
    sink.send(buffer.as_slice()).await.map_err(wrong)?;
    sink.finish().await.map_err(wrong)
}

/// One value in COPY's text format.
fn push(buffer: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Text(text) => escape(buffer, text),
        Value::Null | Value::BadText(_) => buffer.extend_from_slice(b"\\N"),
        Value::Int(_) | Value::UInt(_) | Value::Real(_) | Value::Blob(_) => {
            escape(buffer, &value.to_text().unwrap_or_default());
        }
    }
}

fn escape(buffer: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\\' => buffer.extend_from_slice(b"\\\\"),
            b'\t' => buffer.extend_from_slice(b"\\t"),
            b'\n' => buffer.extend_from_slice(b"\\n"),
            b'\r' => buffer.extend_from_slice(b"\\r"),
            byte => buffer.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_value_is_escaped() {
        let mut buffer = Vec::new();
        for value in [Value::Text("a\tb\\N\r\n".to_owned()), Value::Null, Value::Blob(vec![1, 255])] {
            push(&mut buffer, &value);
            buffer.push(b'|');
        }
        assert_eq!(String::from_utf8(buffer).expect("text"), "a\\tb\\\\N\\r\\n|\\N|\\\\x01ff|");
    }
}
