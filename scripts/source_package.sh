# Sourced by the scripts in scripts/fetch. source_package NAME VERSION SHA256 FOLDER brings a Python source package out of pip, held
# against its checksum and unpacked in FOLDER, which the caller removes. Ends the script with 5 when it cannot be fetched, with
# 3 when it is another archive than the script knows.
source_package() {
  local name=$1 version=$2 sha256=$3 folder=$4
  # pip prepares a source package's metadata even to download it; it fetches the build backend for that by itself.
  python3 -m venv "$folder/venv"
  "$folder/venv/bin/python" -m pip --disable-pip-version-check -q download --no-deps --no-binary :all: -d "$folder" "$name==$version" \
    || { echo "could not fetch the package $name $version with pip (above)" >&2; exit 5; }
  local archive
  archive=$(ls "$folder/$name-$version".*)
  echo "$sha256  $archive" | sha256sum --check --quiet || { echo "$archive is not the archive this script knows" >&2; exit 3; }
  tar -xzf "$archive" -C "$folder"
}
