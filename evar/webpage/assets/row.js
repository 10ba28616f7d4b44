// row
