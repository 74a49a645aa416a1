//! What may be served.

use blkmq_exports::nbd::{BlockSizes, ExportError, Exports};

use crate::client::export;

#[test]
fn names_and_the_default_are_found() {
    let exports = Exports::new(vec![export("gold"), export("bronze")], Some("bronze")).unwrap();
    assert_eq!(exports.find("gold"), Some(0));
    assert_eq!(exports.find("bronze"), Some(1));
    assert_eq!(exports.find(""), Some(1));
    assert_eq!(exports.find("Gold"), None);
    assert_eq!(Exports::new(vec![export("gold")], None).unwrap().find(""), None);
}

#[test]
fn rules_of_lists_are_held() {
    let twice = Exports::new(vec![export("gold"), export("gold")], None).unwrap_err();
    assert_eq!(twice, ExportError::Duplicate("gold".into()));
    let lost = Exports::new(vec![export("gold")], Some("silver")).unwrap_err();
    assert_eq!(lost, ExportError::Default("silver".into()));
    for name in ["", "a\0b", &"x".repeat(4097)] {
        let error = Exports::new(vec![export(name)], None).unwrap_err();
        assert_eq!(error, ExportError::Name(name.into()));
    }
    Exports::new(vec![export("x".repeat(3000).as_str())], None).unwrap();
    let mut wordy = export("gold");
    wordy.description = "y".repeat(4097);
    let error = Exports::new(vec![wordy], None).unwrap_err();
    assert_eq!(error, ExportError::Description("gold".into()));
    let mut odd = export("gold");
    odd.size_bytes += 1;
    assert!(matches!(Exports::new(vec![odd], None), Err(ExportError::Size { .. })));
}

#[test]
fn rules_of_block_sizes_are_held() {
    let accepts = |min_bytes, preferred_bytes, max_payload_bytes| {
        let mut export = export("gold");
        export.block = BlockSizes { min_bytes, preferred_bytes, max_payload_bytes };
        match Exports::new(vec![export], None) {
            Ok(_) => true,
            Err(ExportError::BlockSizes { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    };
    let BlockSizes { min_bytes, preferred_bytes, max_payload_bytes } = BlockSizes::default();
    assert!(accepts(min_bytes, preferred_bytes, max_payload_bytes));
    assert!(accepts(1, 512, 65536));
    assert!(accepts(65536, 65536, 65536));
    assert!(accepts(512, 4096, 1 << 31));

    assert!(!accepts(0, 4096, 1 << 20), "no smallest block");
    assert!(!accepts(3, 4096, 3 << 20), "not a power of two");
    assert!(!accepts(1 << 17, 1 << 17, 1 << 20), "too large a smallest block");
    assert!(!accepts(1, 256, 1 << 20), "too small a preferred block");
    assert!(!accepts(4096, 512, 1 << 20), "preferred below the smallest");
    assert!(!accepts(1, 4095, 1 << 20), "preferred no power of two");
    assert!(!accepts(512, 4096, (1 << 20) + 1), "payload of no whole blocks");
    assert!(!accepts(512, 4096, 32768), "payload below what an unfragmented read may have");
    assert!(!accepts(1, 1 << 20, 1 << 19), "payload below the preferred block");
    assert!(!accepts(1, 4096, (1 << 31) + 1), "payload that leaves no room for a header");
}
