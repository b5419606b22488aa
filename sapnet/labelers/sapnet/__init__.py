"""SAPNet and SAPNet++: selection of proposals by multiple-instance learning."""
