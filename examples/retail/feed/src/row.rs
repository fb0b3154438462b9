//! One invoice line, and how it is read from a CSV.
//!
//! Columns and their names are those of the UCI "Online Retail" data set (Chen, D., 2015, UCI Machine Learning Repository, doi
//! 10.24432/C5BW33, CC BY 4.0). Always holds: two rows are two lines even if all their columns are equal, as some are in the real data; a row is told
//! apart by its number alone.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The customer token of a line whose customer is not known: such lines share one running total.
pub const GUEST: &str = "guest";

/// A row. Its JSON has the CSV's column names; the price stays the text that it is, so that no one need compute with floating point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Row {
    /// Which row it is, from 1; not part of the JSON.
    #[serde(skip)]
    pub number: u64,
    /// The id under which it is published: `row-NUMBER` for a CSV's row, `seed-SEED-row-NUMBER` for a generated one; not part of the JSON.
    #[serde(skip)]
    pub id: String,
    /// Begins with C for a cancellation.
    pub invoice_no: String,
    /// The product.
    pub stock_code: String,
    /// The product's name.
    pub description: String,
    /// Negative for cancellations and some adjustments.
    pub quantity: i64,
    /// `2010-12-01 08:26:00`
    pub invoice_date: String,
    /// Pounds with at most two digits behind the point: `2.55`.
    pub unit_price: String,
    /// Empty if not known.
    #[serde(rename = "CustomerID")]
    pub customer_id: String,
    /// The customer's country.
    pub country: String,
}

/// Why a CSV can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// It is compressed.
    #[error("{path} is compressed: unpack it first, for example with gunzip")]
    Compressed {
        /// The file.
        path: PathBuf,
    },
    /// It can't be read, or a row does not have the columns that it must have.
    #[error(
        "{path} is not a readable CSV with the columns InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID and Country in UTF-8"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        source: csv::Error,
    },
}

impl Row {
    /// The customer as a token of a subject: letters, digits, `-` and `_`, without the `.0` that spreadsheets put behind numbers; [`GUEST`] if not known.
    #[must_use]
    pub fn customer(&self) -> String {
        let id = self.customer_id.trim();
        let id = id.strip_suffix(".0").unwrap_or(id);
        if id.is_empty() {
            return GUEST.to_owned();
        }
        let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        id.chars().map(|c| if is_safe(c) { c } else { '-' }).collect()
    }

    /// Where it is published to.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("retail.lines.{}", self.customer())
    }
}

/// Reads all rows of a CSV, in order.
///
/// # Errors
/// If it is compressed, can't be read, or a row lacks a column or has a quantity that is no whole number.
pub fn read_csv(path: &Path) -> Result<Vec<Row>, CsvError> {
    let is_compressed = path.extension().is_some_and(|extension| extension == "gz" || extension == "zip");
    if is_compressed {
        return Err(CsvError::Compressed { path: path.to_owned() });
    }
    let unreadable = |source| CsvError::Unreadable { path: path.to_owned(), source };
    let mut reader = csv::Reader::from_path(path).map_err(unreadable)?;
    (1..)
        .zip(reader.deserialize::<Row>())
        .map(|(number, row)| row.map(|row| Row { number, id: format!("row-{number}"), ..row }).map_err(unreadable))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

    fn read(rows: &str) -> Result<Vec<Row>, CsvError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.csv");
        std::fs::write(&path, format!("{HEADER}{rows}")).unwrap();
        read_csv(&path)
    }

    #[test]
    fn equal_rows_are_different_lines() {
        let line = "C536379,D,\"Discount, \"\"late\"\"\",-1,2010-12-01 09:41:00,27.5,14527.0,United Kingdom\n";
        let rows = read(&line.repeat(2)).unwrap();
        let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, ["row-1", "row-2"]);
        assert_eq!(rows[0].description, "Discount, \"late\"");
        assert_eq!((rows[0].quantity, rows[0].unit_price.as_str()), (-1, "27.5"));
        assert_eq!(rows[0].subject(), "retail.lines.14527");
    }

    #[test]
    fn the_json_has_the_columns_names() {
        let rows = read("536365,85123A,X,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n").unwrap();
        let json = serde_json::to_string(&rows[0]).unwrap();
        let expected = r#"{"InvoiceNo":"536365","StockCode":"85123A","Description":"X","Quantity":6,"InvoiceDate":"2010-12-01 08:26:00","UnitPrice":"2.55","CustomerID":"17850.0","Country":"United Kingdom"}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn customers_are_safe_tokens_of_a_subject() {
        let mut row = read("1,A,X,1,2010-12-01 08:26:00,1.0,,UK\n").unwrap().remove(0);
        for (id, token) in
            [("", "guest"), (" ", "guest"), ("17850.0", "17850"), ("a.b *", "a-b--"), ("größe>", "gr--e-")]
        {
            row.customer_id = id.to_owned();
            assert_eq!(row.customer(), token, "{id:?}");
        }
    }

    #[test]
    fn what_is_no_such_csv_is_refused_by_name_and_line() {
        let error = read("1,A,X,many,2010-12-01 08:26:00,1.0,,UK\n").unwrap_err();
        let CsvError::Unreadable { source, .. } = &error else { panic!("{error}") };
        assert!(error.to_string().contains("rows.csv") && source.to_string().contains("line"), "{error}: {source}");
        let error = read_csv(Path::new("rows.csv.gz")).unwrap_err().to_string();
        assert!(error.contains("gunzip"), "{error}");
    }
}
