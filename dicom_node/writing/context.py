"""What every result object says about the work that made it, and the UIDs that follow from that."""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_node.uids import result_uid
from models.labels import Label
from models.manifest import ModelManifest

MANUFACTURER = "segnode"
_SERIES_NUMBERS = {"SEG": 9000, "SR": 9500}
_IMPLEMENTATION_CLASS_UID = result_uid("implementation class", MANUFACTURER)


@dataclass(frozen=True)
class ResultContext:
    """The model, engine and job behind a result.

    `content_digest` identifies the series' content; `completed_at` (with a time zone) is recorded on the job,
    so that writing again gives the same bytes. `remarks` are sentences for the reader of the report.
    """

    manifest: ModelManifest
    engine: str
    engine_version: str
    precision: str
    software_version: str
    content_digest: str
    completed_at: datetime
    node_name: str
    remarks: tuple[str, ...] = ()

    def uid(self, study_instance_uid: str, kind: str, *parts: str) -> str:
        """The UID of a thing that this work makes in that study; `parts` such as a label's number."""
        return result_uid(
            kind, study_instance_uid, self.content_digest, self.manifest.digest,
            self.engine, self.engine_version, self.precision, self.software_version, *parts,
        )  # fmt: skip

    @property
    def device_uid(self) -> str:
        """The UID of the algorithm as a device; another model version is another device (IHE AIR 6.5.3.1)."""
        return result_uid("device", self.manifest.digest, self.software_version)

    @property
    def parameters(self) -> dict[str, str]:
        """How the algorithm was run (TID 4019)."""
        return {
            "engine": f"{self.engine} {self.engine_version}",
            "precision": self.precision,
            "model digest": self.manifest.digest[:16],
        }

    def tracking(self, study_instance_uid: str, label: Label) -> tuple[str, str]:
        """Tracking identifier and UID of the label, the same in SEG and SR."""
        identifier = f"{self.manifest.model.name} {label.name}"
        return identifier, self.uid(study_instance_uid, "tracking", str(label.number))

    def local_time(self, image: Dataset) -> datetime:
        """`completed_at` as the wall clock of the study shows it (its offset from UTC, or this machine's)."""
        offset = str(image.get("TimezoneOffsetFromUTC", ""))
        if len(offset) != 5 or not offset[1:].isdigit():
            return self.completed_at.astimezone()
        minutes = int(offset[1:3]) * 60 + int(offset[3:])
        return self.completed_at.astimezone(timezone(timedelta(minutes=int(f"{offset[0]}{minutes}"))))

    def series(self, study_instance_uid: str, kind: str, source_number: int) -> dict[str, Any]:
        """Identity of the series and instance of one result, by highdicom's argument names."""
        model = self.manifest.model
        words = {"SEG": "segmentation", "SR": "measurements"}[kind]
        return {
            "series_instance_uid": self.uid(study_instance_uid, kind, "series"),
            "sop_instance_uid": self.uid(study_instance_uid, kind, "instance"),
            "series_number": _SERIES_NUMBERS[kind] + source_number % 500,
            "series_description": f"{model.name} {model.version} {words}"[:64],
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": model.name,
            "software_versions": [self.software_version, model.version],
            "device_serial_number": self.node_name[:64],
        }

    def finish(self, result: Dataset, image: Dataset, requests: list[Dataset]) -> None:
        """Sets what highdicom draws from the clock, the algorithm's equipment item and the requests."""
        when = self.local_time(image)
        for date, time in (
            ("InstanceCreationDate", "InstanceCreationTime"),
            ("SeriesDate", "SeriesTime"),
            ("ContentDate", "ContentTime"),
        ):
            setattr(result, date, f"{when:%Y%m%d}")
            setattr(result, time, f"{when:%H%M%S.%f}")
        if "TimezoneOffsetFromUTC" in image:
            result.TimezoneOffsetFromUTC = image.TimezoneOffsetFromUTC
        name = str(image.PatientName)
        if name.count("^") == 1:
            result.add_new("PatientName", "PN", name.removesuffix("^"))  # a new element: the old is shared
        result.ContributingEquipmentSequence = [self._equipment()]
        if requests:
            result.RequestAttributesSequence = requests
        result.file_meta.ImplementationClassUID = UID(_IMPLEMENTATION_CLASS_UID)
        result.file_meta.ImplementationVersionName = f"SEGNODE_{self.software_version}"[:16]

    def _equipment(self) -> Dataset:
        """Contributing Equipment (0018,A001) as IHE AIR wants it; highdicom refuses the purpose code."""
        purpose = Dataset()
        purpose.CodeValue = "Newcode1"
        purpose.CodingSchemeDesignator = "99IHE"
        purpose.CodeMeaning = "Processing Algorithm"
        item = Dataset()
        item.PurposeOfReferenceCodeSequence = [purpose]
        item.Manufacturer = MANUFACTURER
        item.ManufacturerModelName = self.manifest.model.name
        item.SoftwareVersions = self.manifest.model.version
        item.DeviceUID = self.device_uid
        item.ContributionDescription = f"Segmentation by {self.manifest.model.title}"[:1024]
        return item
