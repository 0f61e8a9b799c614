"""Everything that speaks DICOM, and the record of what came and went."""
