"""A volume as a CT series on disk, as a scanner would send it: for demonstration, self-test and tests."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_node.uids import result_uid
from models.volume import Volume


@dataclass(frozen=True)
class SeriesFacts:
    """What the headers say. `seed` makes the UIDs; the same seed gives the same ones."""

    seed: str = "phantom"
    patient_id: str = "PHANTOM-1"
    patient_name: str = "Phantom^Thorax"
    accession_number: str = "A0001"
    patient_position: str = "HFS"
    description: str = "Thorax phantom"
    kernel: str = "SEGNODE-SMOOTH"


def write_ct_series(volume: Volume, folder: Path, facts: SeriesFacts | None = None) -> list[Path]:
    """Writes CT Image Storage instances (PS3.3 A.3), Explicit VR Little Endian, one file a slice.

    `volume` in HU (slices, rows, columns); stored with slope 1 and intercept -1024, unsigned 16 bit.
    Returns the files in the order of the slices.
    """
    facts = facts or SeriesFacts()
    folder.mkdir(parents=True, exist_ok=True)
    common = _common(volume, facts)
    files = []
    for number in range(volume.geometry.shape[0]):
        dataset = _slice(volume, number, facts)
        dataset.update(common)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = folder / f"{number + 1:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _common(volume: Volume, facts: SeriesFacts) -> Dataset:
    affine, spacing = volume.geometry.affine, volume.geometry.spacing
    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 192"
    common.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    common.SOPClassUID = CTImageStorage
    common.StudyDate = common.SeriesDate = common.AcquisitionDate = common.ContentDate = "20260102"
    common.StudyTime = common.SeriesTime = common.AcquisitionTime = common.ContentTime = "101500"
    common.AccessionNumber = facts.accession_number
    common.Modality = "CT"
    common.Manufacturer = "segnode"
    common.ManufacturerModelName = "thorax phantom"
    common.ReferringPhysicianName = ""
    common.StudyDescription = "Phantom study"
    common.SeriesDescription = facts.description
    common.PatientName = facts.patient_name
    common.PatientID = facts.patient_id
    common.PatientBirthDate = "19700101"
    common.PatientSex = "O"
    common.BodyPartExamined = "CHEST"
    common.SliceThickness = f"{spacing[0]:.6g}"
    common.KVP = "120"
    common.ConvolutionKernel = facts.kernel
    common.PatientPosition = facts.patient_position
    common.StudyInstanceUID = result_uid("study", facts.seed)
    common.SeriesInstanceUID = result_uid("series", facts.seed)
    common.StudyID = "1"
    common.SeriesNumber = "2"
    common.AcquisitionNumber = "1"
    common.ImageOrientationPatient = [
        *(f"{value:.8f}" for value in affine[:3, 2] / spacing[2]),
        *(f"{value:.8f}" for value in affine[:3, 1] / spacing[1]),
    ]
    common.FrameOfReferenceUID = result_uid("frame-of-reference", facts.seed)
    common.PositionReferenceIndicator = ""
    common.PixelSpacing = [f"{spacing[1]:.8g}", f"{spacing[2]:.8g}"]
    common.SamplesPerPixel = 1
    common.PhotometricInterpretation = "MONOCHROME2"
    common.Rows, common.Columns = volume.geometry.shape[1:]
    common.BitsAllocated = common.BitsStored = 16
    common.HighBit = 15
    common.PixelRepresentation = 0
    common.RescaleIntercept = "-1024"
    common.RescaleSlope = "1"
    common.RescaleType = "HU"
    common.WindowCenter, common.WindowWidth = "-600", "1500"
    return common


def _slice(volume: Volume, number: int, facts: SeriesFacts) -> Dataset:
    dataset = Dataset()
    position = volume.geometry.to_patient(np.array([number, 0, 0]))
    dataset.SOPInstanceUID = result_uid("instance", facts.seed, str(number))
    dataset.InstanceNumber = str(number + 1)
    dataset.ImagePositionPatient = [f"{value:.6f}" for value in position]
    stored = np.clip(volume.array[number].astype(np.int32) + 1024, 0, 65535).astype("<u2")
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset
