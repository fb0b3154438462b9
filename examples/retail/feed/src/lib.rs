//! Input for the retail example: the invoice lines of a web shop, from a CSV or from a generator of the same shape, published to
//! `retail.lines.CUSTOMER`.
//!
//! ```
//! let rows: Vec<retail_feed::Row> = retail_feed::generate(7).take(3).collect();
//! assert_eq!(rows[0].id, "seed-7-row-1");
//! ```

mod generate;
mod publish;
mod row;

pub use generate::{Generator, generate};
pub use publish::{Options, PublishError, Report, publish};
pub use row::{CsvError, GUEST, Row, read_csv};
